import type { NodeHttpHandler } from '@smithy/node-http-handler';
import { OciError } from '../../oci/error.ts';

export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
  expiration?: Date;
}

export interface Role {
  arn: string;
  /** The external ID that the role's trust policy requires. */
  externalId?: string | undefined;
  /** The endpoint of the token service; absent: that of the region. */
  endpoint?: string | undefined;
}

const SESSION_NAME = 'kube-registry';

/** The credentials of a profile in ~/.aws/config and ~/.aws/credentials, or the files that
 *  AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name. */
export function fromProfile(profile: string): () => Promise<Credentials> {
  return async () => {
    const { fromIni } = await import('@aws-sdk/credential-provider-ini');
    return fromIni({ profile })();
  };
}

/** The credentials of a role that `credentials` may assume; absent: those of the SDK's default
 *  chain.
 *  @throws OciError UNAVAILABLE: the token service returns none; its own errors */
export function fromRole(
  { arn, externalId, endpoint }: Role,
  options: { credentials: (() => Promise<Credentials>) | undefined; region: () => string; requestHandler: NodeHttpHandler },
): () => Promise<Credentials> {
  const { credentials, region, requestHandler } = options;
  return async () => {
    const { AssumeRoleCommand, STSClient } = await import('@aws-sdk/client-sts');
    const client = new STSClient({
      region: region(),
      requestHandler,
      maxAttempts: 2,
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(credentials === undefined ? {} : { credentials }),
    });
    const answer = await client.send(new AssumeRoleCommand({ RoleArn: arn, RoleSessionName: SESSION_NAME, ExternalId: externalId }));
    const {
      AccessKeyId: accessKeyId,
      SecretAccessKey: secretAccessKey,
      SessionToken: sessionToken,
      Expiration: expiration,
    } = answer.Credentials ?? {};
    if (accessKeyId === undefined || secretAccessKey === undefined) {
      throw new OciError('UNAVAILABLE', `the token service issues no credentials for the role ${arn}`, {
        origin: 'storage',
        retryAfter: 5,
      });
    }
    return {
      accessKeyId,
      secretAccessKey,
      ...(sessionToken === undefined ? {} : { sessionToken }),
      ...(expiration === undefined ? {} : { expiration }),
    };
  };
}
