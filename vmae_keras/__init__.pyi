from vmae_keras import data as data
from vmae_keras import distribution as distribution
from vmae_keras import masks as masks
from vmae_keras.classifier import VideoClassifier as VideoClassifier
from vmae_keras.config import VideoMAEConfig as VideoMAEConfig
from vmae_keras.conversion.weight_files import convert as convert
from vmae_keras.data.files import list_videos as list_videos
from vmae_keras.data.fine_tuning import fine_tuning_dataset as fine_tuning_dataset
from vmae_keras.data.pretraining import pretraining_dataset as pretraining_dataset
from vmae_keras.data.pretraining import read_clip as read_clip
from vmae_keras.distribution import Devices as Devices
from vmae_keras.encoder import VideoEncoder as VideoEncoder
from vmae_keras.evaluation.classification import evaluate as evaluate
from vmae_keras.evaluation.features import extract_features as extract_features
from vmae_keras.evaluation.prediction import predict as predict
from vmae_keras.evaluation.probes.probing import probe as probe
from vmae_keras.export.artifact import Artifact as Artifact
from vmae_keras.export.exporter import export_model as export_model
from vmae_keras.model import VideoMAE as VideoMAE
from vmae_keras.pictures.reconstruction import reconstruct as reconstruct
from vmae_keras.presets import load as load
from vmae_keras.training.optimizer import AdamW as AdamW
from vmae_keras.training.optimizer import WarmupCosine as WarmupCosine

__version__: str
