"""The protocol of claims and marks as a finite machine, searched from end to end and held against the code."""
