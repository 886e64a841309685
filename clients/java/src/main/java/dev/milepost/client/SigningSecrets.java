package dev.milepost.client;

import java.util.Optional;

/**
 * The secrets that sign your webhooks; for 24 hours after a rotation, both.
 *
 * @param current the present secret
 * @param previous the secret before the rotation
 */
public record SigningSecrets(SigningSecret current, Optional<SigningSecret> previous) {}
