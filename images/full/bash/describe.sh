#!/bin/bash
# Prints language.json: the command that starts the runner, and the version of the language.
jq -n --arg version "${BASH_VERSION%%(*}" '{
  name: "bash",
  command: ["/usr/bin/python3", "-I", "-S", "/opt/oncebox/bash/runner.py"],
  version: $version,
  packages: {},
  notebook: {pieces: "lines"}
}'
