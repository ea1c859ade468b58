"""What everything stands on: errors, registries, types, devices, run folders; no learning here."""
