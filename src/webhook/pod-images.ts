import { fieldsOf, textOf, type Fields } from '../io/untrusted.ts';

/** Where a pod names an image. */
export interface ImagePlace {
  /** The container's name; `volume/<name>` of an image volume. */
  name: string;
  /** JSON Pointer of the image (RFC 6901). */
  path: string;
  image: string;
  pullPolicy: string | undefined;
}

const CONTAINERS = ['initContainers', 'containers', 'ephemeralContainers'] as const;

/** Every place of a pod that names an image; what is shaped otherwise is none. */
export function imagesOf(pod: Fields): ImagePlace[] {
  const spec = fieldsOf(pod['spec']);
  const places = CONTAINERS.flatMap((list) =>
    entries(spec[list]).map(([index, container]) => ({
      name: textOf(container['name']) ?? '',
      path: `/spec/${list}/${index}/image`,
      image: textOf(container['image']) ?? '',
      pullPolicy: textOf(container['imagePullPolicy']),
    })),
  );
  const volumes = entries(spec['volumes']).map(([index, volume]) => {
    const image = fieldsOf(volume['image']);
    return {
      name: `volume/${textOf(volume['name']) ?? ''}`,
      path: `/spec/volumes/${index}/image/reference`,
      image: textOf(image['reference']) ?? '',
      pullPolicy: textOf(image['pullPolicy']),
    };
  });
  return [...places, ...volumes].filter(({ image }) => image !== '');
}

function entries(value: unknown): [number, Fields][] {
  return Array.isArray(value) ? value.map((item, index) => [index, fieldsOf(item)]) : [];
}
