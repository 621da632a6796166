import { access, constants } from 'node:fs/promises';
import { ConfigError } from '../../config/load.ts';
import { createSecret } from '../../config/secret.ts';
import type { S3Config } from '../../config/schema.ts';
import type { S3Store } from '../../store/s3/options.ts';
import type { Log } from '../../telemetry/log.ts';

/** The S3 store that the configuration describes. Its module is loaded only where it is used: the
 *  SDK is large.
 *  @throws ConfigError: the file of `ca` cannot be read */
export async function createS3(config: S3Config, log?: Log): Promise<S3Store> {
  const { s3 } = await import('../../store/s3/s3.ts');
  const { accessKeyId, accessKeyIdFile, secretAccessKey, secretAccessKeyFile, sessionToken, sessionTokenFile } = config;
  const id = createSecret({ value: accessKeyId, file: accessKeyIdFile });
  const secret = createSecret({ value: secretAccessKey, file: secretAccessKeyFile });
  const token = createSecret({ value: sessionToken, file: sessionTokenFile });
  const hasKeys = (accessKeyId ?? accessKeyIdFile) !== undefined;
  const hasToken = (sessionToken ?? sessionTokenFile) !== undefined;
  if (config.ca !== undefined) await checkReadable(config.ca);
  if (config.insecureSkipVerify) {
    log?.warn(
      { event: 's3-certificate-unchecked', bucket: config.bucket },
      "storage.s3.insecureSkipVerify is set: S3's certificate is not checked, so anyone on the way can read the keys and change images",
    );
  }
  return s3({
    ...config,
    log,
    credentials: hasKeys
      ? async () => ({ accessKeyId: await id(), secretAccessKey: await secret(), ...(hasToken ? { sessionToken: await token() } : {}) })
      : undefined,
    role:
      config.roleArn === undefined ? undefined : { arn: config.roleArn, externalId: config.roleExternalId, endpoint: config.stsEndpoint },
    redirectEndpoint: config.redirect?.endpoint,
  });
}

async function checkReadable(file: string): Promise<void> {
  try {
    await access(file, constants.R_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ConfigError(`registry.storage.s3.ca: found ${file}, which cannot be read (${code}); accepted: a PEM file`);
  }
}
