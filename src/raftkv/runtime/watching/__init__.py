"""What a node tells about itself: metrics, status, logs. Reads the rest of the runtime and changes nothing of it."""
