"""From paths to trees of chunks and back: walking, capturing, reading, applying. No keys, no network."""
