/** Why a pod or an image is not rewritten. */
export type Reason =
  | 'namespace'
  | 'label'
  | 'selector'
  | 'operator'
  | 'critical'
  | 'mirror'
  | 'windows'
  | 'virtual-node'
  | 'never-pulled'
  | 'placeholder'
  | 'excluded-image'
  | 'pull-secret'
  | 'private'
  | 'secret-missing'
  | 'secret-unusable'
  | 'name-too-long'
  | 'other-registry'
  | 'no-reference'
  | 'rewritten';

/** The rewritten name, or why the image is not rewritten. */
export type Decision = { image: string } | { reason: Reason };
