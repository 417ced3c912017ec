"""What other implementations are compared with."""
