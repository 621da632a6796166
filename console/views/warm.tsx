import { useState } from 'preact/hooks';
import { act } from '../data/actions.ts';
import { canAct, session } from '../data/session.ts';
import type { Job } from '../data/model.ts';
import { t } from '../language/language.ts';
import { ActionButton } from '../parts/action-button.tsx';
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
        button={<ActionButton disabled={image.trim() === ''}>{t('warm.button')}</ActionButton>}
      />
      <ReadOnly />
    </Section>
  );
}

export function ReadOnly() {
  return session.value === undefined || canAct() ? null : <p class="muted">{t('session.readOnly')}</p>;
}
