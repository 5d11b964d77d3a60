"""Keys and what is done with them: signatures, sealing, derivation, certificates. No records, no files."""
