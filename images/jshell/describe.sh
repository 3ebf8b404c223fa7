#!/bin/sh
# Prints language.json: the command that starts the runner, and the version of the language.
version=$(/opt/java/bin/java -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java\.version = //p')
jq -n --arg version "$version" '{
  name: "java",
  command: ["/opt/java/bin/java", "-XX:AOTCache=/opt/oncebox/java/runner.aot",
            "@/opt/oncebox/java/jvm.options", "-jar", "/opt/oncebox/java/runner.jar"],
  version: $version,
  packages: {},
  notebook: {pieces: "line_ends", simple_error_names: true}
}'
