"""Learning processes with the interface of TensorFlow Federated."""
