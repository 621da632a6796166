/** What a request does to a repository. */
export type Action = 'pull' | 'push' | 'delete';

/** What the name of a caller starts with that is a service account. A user's name holds no colon (RFC 7617, section 2). */
export const SERVICE_ACCOUNT_PREFIX = 'serviceaccount:';

/** Who sent a request, for rights and the log. */
export interface Caller {
  /** `ci`, or `serviceaccount:team-a/builder`; undefined: no credentials were sent. */
  name: string | undefined;
}
