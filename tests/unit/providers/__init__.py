"""The adapters, one by one."""
