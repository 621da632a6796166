import { readAll } from '../io/body.ts';
import { OciError } from '../oci/error.ts';
import { bytesSource, type Store } from '../store/store.ts';
import { inOrder, type UploadStore } from '../store/upload-store.ts';
import { memory } from './memory-store.ts';

/** A store in memory that blobs can be uploaded to; `fault` is called before each write and each
 *  read. */
export function uploadMemory(fault: (operation: 'read' | 'write', key: string) => void = () => undefined): UploadStore {
  const inner: Store = memory();
  const write: Store['write'] = async (key, source, context) => (fault('write', key), inner.write(key, source, context));
  const compose: UploadStore['compose'] = async (parts, key, context) => {
    const pieces = await Promise.all(
      parts.map(async (part) => {
        const found = await inner.read(part.key, context);
        if (found === undefined) throw new OciError('UNAVAILABLE', `${part.key} is missing`, { origin: 'storage' });
        return (await readAll(found.body, found.size)) ?? Buffer.alloc(0);
      }),
    );
    await inner.write(key, bytesSource(Buffer.concat(pieces)), context);
  };
  return {
    ...inner,
    minPartSize: undefined,
    write,
    compose,
    writeInOrder: inOrder({ write, compose }),
    read: async (key, context) => (fault('read', key), inner.read(key, context)),
    async readSmall(key, maxBytes, context) {
      fault('read', key);
      const found = await inner.read(key, context);
      return found === undefined ? undefined : readAll(found.body, maxBytes);
    },
    writeStream: () => Promise.reject(new OciError('UNSUPPORTED', 'this store takes no streams')),
  };
}
