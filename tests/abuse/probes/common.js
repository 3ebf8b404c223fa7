// Definitions for attempts in JavaScript.
const fs = require("node:fs"), net = require("node:net"), dgram = require("node:dgram"), os = require("node:os")
const { execFileSync, spawnSync } = require("node:child_process")
