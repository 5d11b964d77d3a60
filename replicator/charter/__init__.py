"""The rules of charters: who may sign what, what follows what. Pure; used by tenants and providers alike."""
