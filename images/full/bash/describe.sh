#!/bin/bash
# Prints language.json: how the runner is started, and what it runs.
jq -n --arg version "${BASH_VERSION%%(*}" '{
  name: "bash",
  command: ["/usr/bin/python3", "-I", "-S", "/opt/oncebox/bash/runner.py"],
  version: $version,
  packages: {},
  notebook: {pieces: "lines"}
}'
