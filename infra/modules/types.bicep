// Types that more than one file uses.

@export()
@sealed()
@description('An identity provider. docs/IDENTITY.md says what each member means.')
type issuer = {
  issuer: string
  audience: string[]
  subject_claim: string
  owner_claim: string?
  scope_claims: string[]?
  algorithms: ('RS256' | 'ES256')[]
  typ: string[]?
  tenants: string[]?
  bare_subjects: bool?
  discovery: string?
  jwks_uri: string?
}

@export()
@sealed()
@description('Who is responsible for the records of consent. docs/RECEIPTS.md says what each member means.')
type recordController = {
  name: string
  address: string
  contact: string
  @minLength(1)
  storage_locations: string[]
  retention_period: string
  jurisdiction: string
  withdrawal_method: string
}
