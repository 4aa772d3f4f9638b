"""`/twins/{twin_id}/consents`: recorded, renewed and withdrawn under the lock of the twin."""
