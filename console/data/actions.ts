import { announce } from '../parts/announce.tsx';
import { t, type MessageKey, type Values } from '../language/language.ts';
import { ApiError, send } from './api.ts';
import { withSession } from './session.ts';

export interface Action<Answer> {
  path: `/api/actions/${string}`;
  body: unknown;
  /** The message after success. */
  done: (answer: Answer) => { key: MessageKey; values?: Values } | undefined;
  /** Called after success, with the response. */
  after?: (answer: Answer) => void;
}

/** Runs an action as the signed-in user, and shows the result. */
export function act<Answer>({ path, body, done, after }: Action<Answer>): void {
  withSession(async () => {
    try {
      const answer = await send<Answer>('POST', path, body);
      const message = done(answer);
      if (message !== undefined) announce({ tone: 'good', text: t(message.key, message.values) });
      after?.(answer);
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) throw error;
      announce({ tone: 'bad', text: error instanceof ApiError ? error.message : t('error.noAnswer') });
    }
  });
}
