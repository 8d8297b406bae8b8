"""HTTP and only HTTP: reading requests, delivering streams, answering errors in the caller's shape."""
