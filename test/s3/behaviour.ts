import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  GetBucketVersioningCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import type { S3Server } from './gofakes3.ts';

/** The behaviour of a server in cases where servers differ, by question, for the table in
 *  docs/storage.md. */
export type Behaviour = Record<string, string>;

interface Failure {
  name: string;
  Code?: string;
  $metadata?: { httpStatusCode?: number };
  $response?: { headers?: Record<string, string> };
}

const BUCKET = 'behaviour';

export async function behaviourOf({ endpoint, region, accessKeyId, secretAccessKey }: S3Server): Promise<Behaviour> {
  const credentials = { accessKeyId, secretAccessKey };
  const options = { endpoint, region, credentials, forcePathStyle: true, maxAttempts: 1 } as const;
  const client = new S3Client({ ...options, requestChecksumCalculation: 'WHEN_REQUIRED', responseChecksumValidation: 'WHEN_REQUIRED' });
  const at = (Key: string) => ({ Bucket: BUCKET, Key });
  const failure = (call: Promise<unknown>): Promise<Failure | undefined> =>
    call.then(
      () => undefined,
      (error: unknown) => error as Failure,
    );
  const told = (error: Failure | undefined): string =>
    error === undefined ? 'succeeds' : `${error.$metadata?.httpStatusCode ?? 'no answer'} ${error.Code ?? ''}`.trim();
  const body = Buffer.from('content');
  await client.send(new CreateBucketCommand({ Bucket: BUCKET }));
  await client.send(new PutObjectCommand({ ...at('object'), Body: body }));
  await client.send(new PutObjectCommand({ ...at('empty'), Body: Buffer.alloc(0) }));

  const wrong = createHash('sha256').update('other').digest('base64');
  const behind = await failure(client.send(new GetObjectCommand({ ...at('empty'), Range: 'bytes=5-' })));
  const head = await failure(client.send(new HeadObjectCommand(at('nothing'))));
  const signedBy = Object.keys(head?.$response?.headers ?? {}).some((name) => name.startsWith('x-amz-'));
  const page = await client.send(new ListObjectsV2Command({ Bucket: BUCKET, MaxKeys: 1 }));
  const half = await keepsHalf(client);
  const behaviour: Behaviour = {
    'a PUT with a wrong x-amz-checksum-sha256': told(
      await failure(client.send(new PutObjectCommand({ ...at('wrong'), Body: body, ChecksumSHA256: wrong }))),
    ),
    'a PUT that ends half way': half,
    'a range of an empty object': behind === undefined ? 'gives it' : `${told(behind)}${sizeTold(behind) ? ', with the size' : ''}`,
    'HEAD of nothing': `${told(head)}${signedBy ? ', with a request ID' : ', without a request ID'}`,
    'GET of nothing': told(await failure(client.send(new GetObjectCommand(at('nothing'))))),
    'DELETE of nothing': told(await failure(client.send(new DeleteObjectCommand(at('nothing'))))),
    'making a bucket that is there': told(await failure(client.send(new CreateBucketCommand({ Bucket: BUCKET })))),
    'KeyCount of a page':
      page.KeyCount === undefined ? 'absent' : page.KeyCount === page.Contents?.length ? 'right' : `wrong (${page.KeyCount})`,
    ListMultipartUploads: told(await failure(client.send(new ListMultipartUploadsCommand({ Bucket: BUCKET })))),
    GetBucketVersioning: told(await failure(client.send(new GetBucketVersioningCommand({ Bucket: BUCKET })))),
  };
  client.destroy();
  return behaviour;
}

function sizeTold(error: Failure & { ActualObjectSize?: string }): boolean {
  return /\/\d+$/.test(error.$response?.headers?.['content-range'] ?? '') || error.ActualObjectSize !== undefined;
}

/** Sends half of the announced length, and closes the connection. */
async function keepsHalf(client: S3Client): Promise<string> {
  const at = { Bucket: BUCKET, Key: 'half' };
  const url = await getSignedUrl(client, new PutObjectCommand(at));
  await new Promise<void>((resolve) => {
    const put = request(url, { method: 'PUT', headers: { 'content-length': '2000000' } });
    put.on('error', () => resolve());
    put.on('close', () => resolve());
    put.write(Buffer.alloc(1_000_000), () => setTimeout(() => put.destroy(), 200));
  });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const kept = await client.send(new HeadObjectCommand(at)).catch(() => undefined);
  return kept === undefined ? 'keeps nothing' : `keeps ${kept.ContentLength} of 2000000 bytes`;
}

const MARKS = ['<!-- servers -->', '<!-- /servers -->'] as const;

/** Writes the table into docs/storage.md and its Chinese twin, between the marks. */
export async function writeTable(behaviours: Record<string, Behaviour>): Promise<void> {
  const names = Object.keys(behaviours);
  const questions = [...new Set(Object.values(behaviours).flatMap((one) => Object.keys(one)))];
  const rows = questions.map((question) => [question, ...names.map((name) => behaviours[name]?.[question] ?? '')]);
  const table = [['', ...names], names.map(() => '---').concat('---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
  for (const page of ['storage.md', 'storage.zh-CN.md']) {
    const file = join(import.meta.dirname, '../../docs', page);
    const text = await readFile(file, 'utf8');
    const [head = '', rest = ''] = text.split(MARKS[0]);
    const tail = rest.split(MARKS[1])[1];
    if (tail === undefined) throw new Error(`${page} has no ${MARKS.join(' … ')}`);
    await writeFile(file, `${head}${MARKS[0]}\n\n${table}\n\n${MARKS[1]}${tail}`);
  }
}
