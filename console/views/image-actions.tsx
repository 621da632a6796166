import { act } from '../data/actions.ts';
import type { Deleted, ImageDetail, Job } from '../data/model.ts';
import { announce } from '../parts/announce.tsx';
import { t } from '../language/language.ts';
import { ActionButton } from '../parts/action-button.tsx';
import { Dialog } from '../parts/dialog.tsx';
import { Foreign } from '../parts/names.tsx';
import { Icon } from '../parts/icon.tsx';

/** Keeps a tag, or an image without one, from pruning. */
export function PinButton({
  image,
  tag,
  pinned,
  reload,
}: {
  image: ImageDetail;
  tag: string | undefined;
  pinned: boolean;
  reload: () => void;
}) {
  const { repository, digest } = image;
  const name = tag ?? digest;
  return (
    <ActionButton
      kind="small"
      onClick={() =>
        act({
          path: pinned ? '/api/actions/unpin' : '/api/actions/pin',
          body: { repository, ...(tag === undefined ? { digest } : { tag }) },
          done: () => ({ key: pinned ? 'pin.removed' : 'pin.done', values: { name } }),
          after: reload,
        })
      }
    >
      <Icon name="pin" />
      {t(pinned ? 'pin.remove' : 'pin.button')}
      <span class="hidden-text"> {name}</span>
    </ActionButton>
  );
}

export function WarmButton({ image: { names, repository, digest } }: { image: ImageDetail }) {
  const name = names[0] ?? `${repository}@${digest}`;
  return (
    <ActionButton
      kind="small"
      onClick={() =>
        act<Job>({
          path: '/api/actions/warm',
          body: { image: name },
          done: ({ what }) => ({ key: 'warm.started', values: { image: what } }),
        })
      }
    >
      <Icon name="downloads" />
      {t('warm.again')}
    </ActionButton>
  );
}

export interface DeleteTagProps {
  image: ImageDetail;
  tag: string;
  close: () => void;
  done: () => void;
}

/** Asks for confirmation, and deletes the tag only if it still has the shown digest. */
export function DeleteTag({ image: { repository, digest }, tag, close, done }: DeleteTagProps) {
  const remove = () => {
    close();
    act<Deleted>({
      path: '/api/actions/delete-tag',
      body: { repository, tag, digest },
      done: () => undefined,
      after: ({ deleted, note }) => {
        announce({ tone: deleted ? 'good' : 'info', text: `${t(deleted ? 'delete.done' : 'delete.already', { tag })} ${note}` });
        done();
      },
    });
  };
  return (
    <Dialog title={t('delete.title')} onClose={close}>
      <div class="stack">
        <p>
          <b>
            <Foreign text={`${repository}:${tag}`} />
          </b>
        </p>
        <p>{t('delete.text')}</p>
        <p class="dialog-buttons">
          <button type="button" class="button" onClick={close}>
            {t('dialog.cancel')}
          </button>
          <button type="button" class="button danger" onClick={remove}>
            {t('delete.button')}
          </button>
        </p>
      </div>
    </Dialog>
  );
}

export function DeleteButton({ tag, open }: { tag: string; open: () => void }) {
  return (
    <ActionButton kind="small danger" onClick={open}>
      {t('delete.button')}
      <span class="hidden-text"> {tag}</span>
    </ActionButton>
  );
}
