import { useState } from 'preact/hooks';
import { act } from '../data/actions.ts';
import { session } from '../data/session.ts';
import type { Job } from '../data/model.ts';
import { t } from '../language/language.ts';
import { ImageForm } from '../parts/image-form.tsx';
import { Section } from '../parts/marks.tsx';

/** Fetches an image before a node pulls it. */
export function WarmForm() {
  const [image, setImage] = useState('');
  return (
    <Section id="warm" title={t('warm.title')}>
      <p class="muted">{t('warm.lead')}</p>
      <ImageForm
        id="warm-image"
        label={t('image.name')}
        value={image}
        onInput={setImage}
        onSubmit={() =>
          act<Job>({
            path: '/api/actions/warm',
            body: { image: image.trim() },
            done: ({ what }) => ({ key: 'warm.started', values: { image: what } }),
            after: () => setImage(''),
          })
        }
        disabled={image.trim() === '' || !canAct()}
      >
        {t('warm.button')}
      </ImageForm>
      <ReadOnly />
    </Section>
  );
}

/** Whether users can sign in: without `console.users`, the console is read-only. */
export function canAct(): boolean {
  return session.value?.canLogIn === true;
}

export function ReadOnly() {
  return session.value === undefined || canAct() ? null : <p class="muted">{t('session.readOnly')}</p>;
}
