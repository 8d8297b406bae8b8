"""What every implementation of a protocol must keep."""
