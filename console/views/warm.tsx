import { useState } from 'preact/hooks';
import { act } from '../data/actions.ts';
import { session } from '../data/session.ts';
import type { Job } from '../data/model.ts';
import { t } from '../language/language.ts';
import { Section } from '../parts/marks.tsx';

/** Fetches an image before anybody asks for it. */
export function WarmForm() {
  const [image, setImage] = useState('');
  return (
    <Section id="warm" title={t('warm.title')}>
      <p class="muted">{t('warm.lead')}</p>
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          act<Job>({
            path: '/api/actions/warm',
            body: { image: image.trim() },
            done: ({ what }) => ({ key: 'warm.started', values: { image: what } }),
            after: () => setImage(''),
          });
        }}
      >
        <label class="search plain" for="warm-image">
          <span class="hidden-text">{t('image.name')}</span>
          <input
            id="warm-image"
            type="text"
            placeholder={t('check.placeholder')}
            value={image}
            spellcheck={false}
            autocomplete="off"
            autocapitalize="off"
            onInput={({ currentTarget }) => setImage(currentTarget.value)}
          />
        </label>
        <button type="submit" class="button" disabled={image.trim() === '' || !canAct()}>
          {t('warm.button')}
        </button>
      </form>
      <ReadOnly />
    </Section>
  );
}

/** Whether anybody can sign in at all: without `console.users` the console only shows. */
export function canAct(): boolean {
  return session.value?.canLogIn === true;
}

export function ReadOnly() {
  return session.value === undefined || canAct() ? null : <p class="muted">{t('session.readOnly')}</p>;
}
