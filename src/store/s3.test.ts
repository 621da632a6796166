import { after } from 'node:test';
import { startVersitygw } from '../../test/support/versitygw.ts';
import { s3 } from './s3.ts';
import { storeConformance } from './store.conformance.ts';

const signal = new AbortController().signal;
const server = await startVersitygw();
const { endpoint, region, accessKeyId, secretAccessKey } = server;
let buckets = 0;

after(() => server[Symbol.asyncDispose]());

storeConformance('s3', async () => {
  const store = s3({
    bucket: `conformance-${buckets++}`,
    region,
    endpoint,
    forcePathStyle: true,
    createBucket: true,
    prefix: 'some/prefix',
    credentials: () => Promise.resolve({ accessKeyId, secretAccessKey }),
  });
  await store.prepare({ signal });
  return { store, [Symbol.asyncDispose]: () => store.close() };
});
