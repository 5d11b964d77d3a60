"""Objects on a disk: content-named, never overwritten, durable before they are acknowledged."""
