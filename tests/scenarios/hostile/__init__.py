"""What a writer or a provider that means ill can send, and that it does no harm."""
