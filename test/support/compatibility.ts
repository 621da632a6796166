import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { readRows, sortRows, type CompatibilityRow } from '../../docs/compatibility.ts';

// How to add a row to docs/compatibility.md: call `recordCompatibility` as the last line of a test,
// with the version that the software reports itself (or `scripted`), and run `npm run compatibility
// -- FILE_OF_THE_TEST`.

const root = join(import.meta.dirname, '../..');

/** Records a result of the test in `file` (import.meta.filename), which has just passed. `npm run
 *  compatibility` writes the row; in any other run it must exist already, with the same major and
 *  minor version.
 *  @throws AssertionError: docs/compatibility.json has no such row */
export function recordCompatibility(file: string, row: Omit<CompatibilityRow, 'test'>): void {
  const own: CompatibilityRow = { ...row, test: relative(root, file) };
  const rows = readRows();
  const known = rows.find((other) => isSame(other, own));
  if (process.env['KUBE_REGISTRY_COMPATIBILITY'] === 'write') {
    const kept = rows.filter((other) => other !== known);
    writeFileSync(join(root, 'docs/compatibility.json'), `${JSON.stringify(sortRows([...kept, own]), undefined, 2)}\n`);
    return;
  }
  assert.ok(
    known !== undefined && known.works === own.works && known.what.zh === own.what.zh,
    `docs/compatibility.json has no row for ${own.name} ${own.version}: "${own.what.en}". Run npm run compatibility -- ${own.test}`,
  );
}

/** The same result of the same test for the same software, in the same minor version. */
function isSame(one: CompatibilityRow, other: CompatibilityRow): boolean {
  const keyOf = ({ kind, name, test, version, what }: CompatibilityRow) => [kind, name, test, minorOf(version), what.en].join('\0');
  return keyOf(one) === keyOf(other);
}

function minorOf(version: string): string {
  return /^v?\d+\.\d+/.exec(version)?.[0] ?? version;
}

/** The version that `program ARGS` prints. @throws Error: it prints none */
export async function versionOf(program: string, ...args: string[]): Promise<string> {
  const { stdout, stderr } = await promisify(execFile)(program, args);
  const version = /\bv?(\d+\.\d+(?:\.\d+)?)/.exec(stdout + stderr)?.[1];
  if (version === undefined) throw new Error(`${program} ${args.join(' ')} prints no version: ${stdout}`);
  return version;
}
