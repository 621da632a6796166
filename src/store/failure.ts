import { OciError } from '../oci/error.ts';

/** Translates a failed file operation into an error for the operator. An OciError is returned
 *  unchanged. */
export function fileFailure(error: unknown, doing: string, directory: string): OciError {
  if (error instanceof OciError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const message = `${doing} failed: ${ADVICE[code]?.(directory) ?? `${code === '' ? String(error) : code} in ${directory}`}`;
  return new OciError('UNAVAILABLE', message, { cause: error, origin: 'storage' });
}

const full = (directory: string): string =>
  `the disk of ${directory} is full: enlarge the volume, or lower registry.cache.maxSize or registry.local.maxSize`;
const forbidden = (directory: string): string =>
  `no permission in ${directory}: give it to the user that the registry runs as (in Kubernetes: securityContext.fsGroup)`;

const ADVICE: Record<string, ((directory: string) => string) | undefined> = {
  ENOSPC: full,
  EDQUOT: full,
  EACCES: forbidden,
  EPERM: forbidden,
  EROFS: (directory) => `${directory} is mounted read-only`,
  ENOTDIR: (directory) => `${directory} is not a directory, or is below a path that is not a directory`,
  EMFILE: () => 'too many open files: raise the limit (ulimit -n)',
  ENFILE: () => 'too many open files on this machine: raise fs.file-max',
  EIO: (directory) => `the disk of ${directory} fails (EIO)`,
  ESTALE: (directory) => `the network file system of ${directory} was replaced: restart the registry`,
};

/** The error for a source that returned more or fewer bytes than it announced. */
export function wrongLength(expected: number, actual: number): OciError {
  const what = actual > expected ? `more than the ${expected} bytes` : `${actual} of the ${expected} bytes`;
  return new OciError('SIZE_INVALID', `the content has ${what} that were announced; nothing was stored`);
}

/** Carries an error of the source itself past the translation of file and S3 errors. */
export class SourceError extends Error {
  override readonly name = 'SourceError';
}
