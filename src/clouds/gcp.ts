import type { AuthClient } from 'google-auth-library';
import type { LogIn } from './short-lived-login.ts';

export interface GcpOptions {
  /** A service account's key, or the configuration of a workload identity federation (JSON).
   *  Default: the identity of the metadata server: workload identity of GKE, or the node's
   *  service account. */
  keyFile?: string | undefined;
}

/** "Authenticate to Artifact Registry": the user name for an access token. */
const USERNAME = 'oauth2accesstoken';
const SCOPE = 'https://www.googleapis.com/auth/cloud-platform';
/** The lifetime of a token without an expiry, in ms. */
const DEFAULT_LIFE_MS = 10 * 60_000;

/** Logs in to Artifact Registry and gcr.io with an access token of Google Cloud. */
export function gcpLogin({ keyFile }: GcpOptions): LogIn {
  let client: Promise<AuthClient> | undefined;

  async function createClient() {
    const { Compute, GoogleAuth } = await import('google-auth-library');
    // Without a file, GoogleAuth would look for an identity in many places first, which takes
    // seconds.
    return keyFile === undefined ? new Compute({ scopes: [SCOPE] }) : new GoogleAuth({ scopes: SCOPE, keyFilename: keyFile }).getClient();
  }

  return async () => {
    client ??= createClient();
    try {
      const own = await client;
      const { token } = await own.getAccessToken();
      if (typeof token !== 'string' || token === '') throw new Error('the answer holds no token');
      return { username: USERNAME, password: token, expires: own.credentials.expiry_date ?? Date.now() + DEFAULT_LIFE_MS };
    } catch (error) {
      client = undefined; // the key file may have changed by the next time
      throw error;
    }
  };
}
