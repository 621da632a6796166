import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { debianTool } from '../tools/tools.ts';

const run = promisify(execFile);
const TYPE = 'application/vnd.example.signature';

export interface Signature {
  signature: Buffer;
  /** Pushes the signature as a referrer of `image` (HOST/NAME@DIGEST, over HTTP). */
  attach(this: void, oras: string, image: string, directory: string): Promise<void>;
  /** Finds and pulls the signature of `image` by `oras discover`, and has openssl verify it over the pulled manifest. */
  verify(this: void, oras: string, image: string, directory: string): Promise<Buffer>;
}

/** A signature over a manifest, with a key of its own. */
export function signatureOf(manifest: Uint8Array): Signature {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const signature = sign('sha256', manifest, privateKey);
  return {
    signature,
    async attach(oras, image, directory) {
      const cwd = await mkdtemp(join(directory, 'attach-'));
      await writeFile(join(cwd, 'signature'), signature);
      await run(oras, ['attach', '--plain-http', '--artifact-type', TYPE, image, `signature:${TYPE}`], { cwd });
    },
    async verify(oras, image, directory) {
      const cwd = await mkdtemp(join(directory, 'verify-'));
      const { stdout } = await run(oras, ['discover', '--plain-http', '--artifact-type', TYPE, '--format', 'json', image]);
      const [first] = (JSON.parse(stdout) as { referrers?: { digest: string }[] }).referrers ?? [];
      assert.ok(first !== undefined, 'the signature is listed');
      const name = image.slice(0, image.lastIndexOf('@'));
      await run(oras, ['pull', '--plain-http', '--output', cwd, `${name}@${first.digest}`]);
      await run(oras, ['manifest', 'fetch', '--plain-http', '--output', join(cwd, 'manifest'), image]);
      await writeFile(join(cwd, 'key.pem'), publicKey.export({ type: 'spki', format: 'pem' }));
      const { stdout: said } = await run(
        await debianTool('openssl'),
        ['dgst', '-sha256', '-verify', 'key.pem', '-signature', 'signature', 'manifest'],
        { cwd },
      );
      assert.match(said, /Verified OK/);
      return readFile(join(cwd, 'signature'));
    },
  };
}
