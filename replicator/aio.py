"""aiohttp, imported without the certificates of this machine's authorities.

When it is imported it reads all of them, which takes a tenth of a second of every command. Providers are known by their
keys (:mod:`replicator.transport.tls`), so nothing here goes by those; who asks the web brings a context that does, or
no certificate is believed.
"""

import os

_PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_before = {name: os.environ.get(name) for name in _PLACES}
os.environ.update(dict.fromkeys(_PLACES, os.devnull))
try:
    import aiohttp
finally:
    for _name, _value in _before.items():
        if _value is None:
            del os.environ[_name]
        else:
            os.environ[_name] = _value

__all__ = ["aiohttp"]
