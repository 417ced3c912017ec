"""What a server keeps: rows in SQLite or PostgreSQL, blobs in files. Nothing is told before it is durable."""
