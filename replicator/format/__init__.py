"""Every stored record and byte layout, as pure values. No keys, no I/O. docs/spec/format.md is the contract."""
