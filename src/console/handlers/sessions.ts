import type { Log } from '../../telemetry/log.ts';
import { sessionSchema } from '../api/sessions.ts';
import type { Session as ApiSession } from '../api/sessions.ts';
import { ApiFailure, type ApiHandlers } from '../api-server.ts';
import type { OtherReplicas } from '../replicas.ts';
import type { Session, Sessions } from '../sessions.ts';

export interface SessionsHandlersOptions {
  /** Undefined: login is disabled. */
  sessions: Sessions | undefined;
  replicas: OtherReplicas;
  log: Log;
}

/** Login and logout. A session is kept by the replica that created it; other replicas ask that
 *  one. */
export function createSessionHandlers({
  sessions,
  replicas,
  log,
}: SessionsHandlersOptions): Pick<ApiHandlers, 'session' | 'logIn' | 'logOut'> {
  const describe = (session: Session | undefined): ApiSession => ({
    user: session?.user ?? null,
    expiresAt: session === undefined ? null : new Date(session.expiresAt).toISOString(),
    canLogIn: sessions !== undefined,
  });

  return {
    session: ({ session }) => describe(session),

    async logIn({ body, client, setSession }) {
      if (sessions === undefined) throw new ApiFailure('DENIED', 'login is disabled: registry.console.users is not set');
      const { user, password } = body;
      const begun = await sessions.begin({ user, password, ...client });
      if (begun === undefined) {
        log.warn({ event: 'console-login-refused', user: user.slice(0, 64), client: client.address }, 'a login to the console was refused');
        throw new ApiFailure('UNAUTHORIZED', 'the user name or the password is wrong');
      }
      log.info({ event: 'console-login', user, client: client.address }, 'a user has logged in to the console');
      setSession(begun);
      return describe(begun.session);
    },

    async logOut({ session, token, alone, setSession }) {
      if (token !== undefined) sessions?.end(token);
      if (token !== undefined && !alone) await replicas.ask('/api/session', sessionSchema, { method: 'DELETE', token });
      if (session !== undefined && !alone)
        log.info({ event: 'console-logout', user: session.user }, 'a user has logged out of the console');
      setSession(undefined);
      return describe(undefined);
    },
  };
}

/** Finds a session in this replica, or else in the other replicas. */
export function createSessionLookup({ sessions, replicas }: Pick<SessionsHandlersOptions, 'sessions' | 'replicas'>) {
  return async (token: string, alone: boolean): Promise<Session | undefined> => {
    const own = await sessions?.find(token);
    if (own !== undefined || alone || sessions === undefined) return own;
    const { answers } = await replicas.ask('/api/session', sessionSchema, { token });
    for (const { answer } of answers) {
      if (answer.user !== null && answer.expiresAt !== null) return { user: answer.user, expiresAt: Date.parse(answer.expiresAt) };
    }
    return undefined;
  };
}
