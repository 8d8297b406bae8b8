"""Configuration: one YAML file and the environment, validated at boot, read by `gateway.app` and `gateway.cli` only."""
