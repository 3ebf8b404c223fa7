// Writes language.json while the image is built: how the agent starts the runner, and what the image really has.
import { writeFileSync } from 'node:fs';

const language = {
  name: 'javascript',
  // V8 may take all the memory that the container has; the container's limit decides.
  command: ['/opt/node/bin/node', '--max-old-space-size-percentage=100', '/opt/oncebox/javascript/runner.mjs'],
  version: process.versions.node,
  packages: {},
  // What is logged by one call is written by one.
  keep_writes_apart: true,
};
writeFileSync('/opt/oncebox/javascript/language.json', `${JSON.stringify(language)}\n`);
