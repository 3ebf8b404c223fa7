// Definitions for attempts in TypeScript.
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import { execFileSync } from "node:child_process"
import { Worker } from "node:worker_threads"
