#!/usr/bin/env -S node --max-semi-space-size=4
import module from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// Compiled code is cached between starts. Only modules imported after this are cached.
process.env['NODE_COMPILE_CACHE'] ??= join(tmpdir(), 'node-compile-cache');
module.enableCompileCache(process.env['NODE_COMPILE_CACHE']);
await import('./program.ts');
