import { after } from 'node:test';
import { startGofakes3 } from '../../../test/s3/gofakes3.ts';
import { storeConformance } from '../../testing/store-suite.ts';
import { s3 } from './s3.ts';

// A second server besides versitygw, by other authors; the others: npm run test:s3.

const server = await startGofakes3();
let buckets = 0;
after(() => server[Symbol.asyncDispose]());

storeConformance('s3 over gofakes3 1.2.0', async () => {
  const { endpoint, region, accessKeyId, secretAccessKey } = server;
  const credentials = () => Promise.resolve({ accessKeyId, secretAccessKey });
  const bucket = `conformance-${buckets++}`;
  const store = s3({ bucket, region, endpoint, forcePathStyle: true, createBucket: true, prefix: '', credentials });
  await store.prepare({ signal: AbortSignal.timeout(60_000) });
  return { store, [Symbol.asyncDispose]: () => store.close() };
});
