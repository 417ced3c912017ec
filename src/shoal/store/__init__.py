"""What a server keeps: rows in SQLite or PostgreSQL, blobs in files or S3. Nothing is told before it is durable."""
