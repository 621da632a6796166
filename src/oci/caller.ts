/** The right that a request needs in a repository. */
export type Action = 'pull' | 'push' | 'delete';

/** The start of a ServiceAccount's name as a caller. The name of a user contains no colon (RFC
 *  7617, section 2). */
export const SERVICE_ACCOUNT_PREFIX = 'serviceaccount:';

/** The sender of a request, for rights and the log. */
export interface Caller {
  /** `ci`, or `serviceaccount:team-a/builder`; undefined: no credentials were sent. */
  name: string | undefined;
}
