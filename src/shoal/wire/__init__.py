"""What passes between a server and its clients: typed messages, blobs of tensors, payloads, plans."""
