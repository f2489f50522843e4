"""Reports: finished runs read back, compared only under one protocol, and shown."""
