"""Whole backups beside the tools that people would otherwise pick: borg, restic, rustic and kopia."""
