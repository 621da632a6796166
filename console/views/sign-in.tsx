import { useState } from 'preact/hooks';
import { ApiError } from '../data/api.ts';
import { pendingSignIn, signIn } from '../data/session.ts';
import { t } from '../language/language.ts';
import { Dialog } from '../parts/dialog.tsx';
import { Notice } from '../parts/marks.tsx';

/** The sign-in dialog, for an action or on request. */
export function SignIn() {
  const then = pendingSignIn.value;
  return then === undefined ? null : <SignInDialog then={then} />;
}

function SignInDialog({ then }: { then: () => void }) {
  const [problem, setProblem] = useState<string | undefined>(undefined);
  const [busy, setBusy] = useState(false);
  const submit = async (form: HTMLFormElement): Promise<void> => {
    const fields = new FormData(form);
    setBusy(true);
    try {
      await signIn(textOf(fields, 'user'), textOf(fields, 'password'));
      pendingSignIn.value = undefined;
      then();
    } catch (error) {
      setProblem(error instanceof ApiError ? wordsOf(error) : t('error.noAnswer'));
      setBusy(false);
    }
  };
  return (
    <Dialog title={t('signIn')} onClose={() => (pendingSignIn.value = undefined)}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit(event.currentTarget);
        }}
      >
        <div role="alert">{problem === undefined ? null : <Notice tone="bad" title={problem} />}</div>
        <label class="field">
          {t('signIn.user')}
          <input type="text" name="user" autocomplete="username" autocapitalize="off" spellcheck={false} required />
        </label>
        <label class="field">
          {t('signIn.password')}
          <input type="password" name="password" autocomplete="current-password" required />
        </label>
        <p class="dialog-buttons">
          <button type="submit" class="button primary" disabled={busy}>
            {t('signIn')}
          </button>
        </p>
      </form>
    </Dialog>
  );
}

function textOf(fields: FormData, name: string): string {
  const value = fields.get(name);
  return typeof value === 'string' ? value : '';
}

function wordsOf({ status, message }: ApiError): string {
  if (status === 401) return t('signIn.wrong');
  return status === 429 ? t('signIn.tooMany') : message;
}
