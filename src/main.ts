#!/usr/bin/env -S node --max-semi-space-size=4
import module from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// Compiled code is kept from start to start; what is to be kept must be imported after this.
process.env['NODE_COMPILE_CACHE'] ??= join(tmpdir(), 'node-compile-cache');
module.enableCompileCache(process.env['NODE_COMPILE_CACHE']);
await import('./program.ts');
